"""What all pictures share: their style, their files, and the page that shows them."""
