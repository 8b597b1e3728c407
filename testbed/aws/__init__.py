"""The AWS side: seven accounts, their landing zone, and real Terraform tools against them."""
