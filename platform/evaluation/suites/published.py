"""What the paper reports: Table 1 (VBench) and Table 2 (EvalCrafter) of Pyramid Flow (Jin et al. 2024)."""

from collections.abc import Mapping

VBENCH_COLUMNS = ("total", "quality", "semantic", "motion smoothness", "dynamic degree")
EVALCRAFTER_COLUMNS = (
    "final sum",
    "visual quality",
    "text-video alignment",
    "motion quality",
    "temporal consistency",
)

Rows = Mapping[str, tuple[float, ...]]

VBENCH: Rows = {
    "Gen-2": (80.58, 82.47, 73.03, 99.58, 18.89),
    "Pika 1.0": (80.69, 82.92, 71.77, 99.50, 47.50),
    "CogVideoX-2B": (80.91, 82.18, 75.83, 97.73, 59.86),
    "CogVideoX-5B": (81.61, 82.75, 77.04, 96.92, 70.97),
    "Kling": (81.85, 83.38, 75.68, 99.40, 46.94),
    "Gen-3 Alpha": (82.32, 84.11, 75.17, 99.23, 60.14),
    "Open-Sora Plan v1.1": (78.00, 80.91, 66.38, 98.28, 47.72),
    "Open-Sora 1.2": (79.76, 81.35, 73.39, 98.50, 42.39),
    "VideoCrafter2": (80.44, 82.20, 73.42, 97.73, 42.50),
    "T2V-Turbo": (81.01, 82.57, 74.76, 97.34, 49.17),
    "Pyramid Flow (paper)": (81.72, 84.74, 69.62, 99.12, 64.63),
}

EVALCRAFTER: Rows = {
    "Pika 1.0": (250, 63.05, 66.97, 56.43, 63.81),
    "Gen-2": (254, 69.09, 63.92, 55.59, 65.40),
    "ModelScope": (218, 53.09, 54.46, 52.47, 57.80),
    "Show-1": (229, 52.19, 62.07, 53.74, 60.83),
    "LaVie": (234, 57.99, 68.49, 52.83, 54.23),
    "VideoCrafter2": (243, 63.98, 63.16, 54.82, 61.46),
    "Pyramid Flow (paper)": (244, 67.94, 57.01, 55.31, 63.41),
}
