"""The shared vocabulary: quantities, selectors, names, references, times and API objects."""
