"""What stages of spike trains share: making a train, sums over time, and the event-driven architecture."""
