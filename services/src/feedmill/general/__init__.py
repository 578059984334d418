"""Work of a pipeline that is not of one shard: maintenance."""
