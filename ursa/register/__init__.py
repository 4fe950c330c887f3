"""Registration: from a recording on a disk to objects that are proven and rows that say so."""
