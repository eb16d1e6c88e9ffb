"""One module for each provider's, library's or convention's way of counting."""
