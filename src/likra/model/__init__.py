"""The model that people hold: two terms and a weight; fitted, kept, and asked."""
