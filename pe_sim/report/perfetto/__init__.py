"""Takes a report, gives what goes on where and when as tracks, and the Chrome trace of them."""
