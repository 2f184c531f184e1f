"""From the columns of a frame to ids and numbers, without torch."""
