"""Takes an interconnect, a collective and its bytes, gives programs of hops and what they take."""
