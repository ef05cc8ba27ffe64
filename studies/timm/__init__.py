"""Which of the names that timm lists load: recorded keys and shapes, and the page that says so."""
