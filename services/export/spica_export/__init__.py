"""Names finished stacks, tells how they were made, and delivers them with a receipt."""
