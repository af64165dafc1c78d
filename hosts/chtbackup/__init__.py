"""What runs on machines: each program, and what they share. It lands as one tree, and is run by
`python3 /opt/cht-backup/DEPLOYMENT/chtbackup PROGRAM` (see `__main__.py`)."""
