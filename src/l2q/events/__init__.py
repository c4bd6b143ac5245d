"""Any table of events becomes interactions: files, folders, archives, frames and databases."""
