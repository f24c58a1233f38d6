"""The sources' own settings: data, networks, epochs, batches and schedules, each by one command, for whoever has a GPU and the data."""
