"""One runnable script a question: `python -m experiments.<name>`; results are regenerated, small ones committed."""
