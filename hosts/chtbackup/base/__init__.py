"""What every program uses."""
