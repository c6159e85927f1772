"""Labels in from the tools that people use, and out to them."""
