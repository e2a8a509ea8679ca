"""Private results: charged before they are asked for, made once, and what is said of them."""
