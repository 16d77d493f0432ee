"""The main job: a year of flights through a cluster whose nodes are killed, stopped and restarted. See README.md."""
