"""From bytes on the wire to the features an acoustic model takes."""
