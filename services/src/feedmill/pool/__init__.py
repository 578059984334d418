"""The pool of account receivers: lines, distributors and storing, moved from member to member account by account."""
