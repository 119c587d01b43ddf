"""What cloud and devices agree on: types, config, tasks, data, models, scoring, the wire, a run's folder."""
