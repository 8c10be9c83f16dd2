"""petlbench: a benchmark harness for parameter-efficient transfer learning on medical images."""

__version__ = "0.1.0"
