"""The web page of `leandit serve`."""
