"""Many jobs: in turn, side by side, or on a cluster; each in a folder of its own that outlives the sweep's process."""
