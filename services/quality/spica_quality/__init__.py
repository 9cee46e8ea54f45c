"""Quality: measures images and stacks, and grades them."""
