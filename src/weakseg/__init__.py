"""weakseg: segmentation from weak labels."""
