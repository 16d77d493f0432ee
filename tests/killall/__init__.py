"""What is left when every node is killed at once."""
