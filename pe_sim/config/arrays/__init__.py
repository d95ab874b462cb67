"""Takes an array file, gives a frozen ArrayConfig with every `auto` filled in."""
