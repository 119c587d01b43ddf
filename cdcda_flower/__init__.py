"""What cloud and devices agree on: types, config, tasks, data, models, metrics, the wire, a run's folder."""
