"""What flags can say, as plain values: a command knows them before torch is imported."""

CROP = 224  # pixels of the square that the fork shows a model
GROUPINGS = ("auto", "slide", "patient", "cohort", "site", "none")
VOTES = ("softmax", "majority")
LEARNING_RATES = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1)  # of linear heads
BACKENDS = ("auto", "sklearn", "torch")  # of logistic regression
DTYPES = ("float64", "float32")  # likewise
METRICS = {"mean_accuracy": "acc", "mean_per_class_accuracy": "bacc"}  # DINOv2's names, and those here
LINEAR_RESULTS = "results_eval_linear.json"  # DINOv2's name
