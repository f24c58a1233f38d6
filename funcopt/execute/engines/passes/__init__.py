"""Rewrites of graphs: products in half precision, numbers worked out once, leaves read before they are overwritten."""
