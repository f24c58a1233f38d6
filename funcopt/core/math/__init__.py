"""The mathematics that methods share: running moments, lengths of vectors, safe arithmetic, projections."""
