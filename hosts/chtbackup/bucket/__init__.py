"""The third copy: a bucket, what it holds, and the way back."""
