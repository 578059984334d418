"""The commands of `feedmill`: one file each, thin over the packages that do the work."""
