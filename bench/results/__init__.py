"""README's tables of results, from stored reports and measurements; see `bench.results.command`."""
