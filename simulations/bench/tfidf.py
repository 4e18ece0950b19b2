"""What words alone say of a text's class: TF-IDF and logistic regression, on the halves that tasks have.

python -m simulations.bench.tfidf bbc-news
python -m simulations.bench.tfidf csv:/data/reviews.csv --options "text = 'review', label = 'stars'"
"""

from typing import Annotated

import typer

from models.core.config import TaskConfig
from models.core.errors import UserError
from models.data.datasets import load_dataset
from models.data.labelled_text import KIND, read_texts

# scikit-learn's parts are imported where they are used: a command's help does without.


def scores(config: TaskConfig, strength: float = 10.0) -> tuple[float, float]:
    """Return accuracy and macro F1 on the held-out texts, of words and pairs of words.

    `strength` is C of the logistic regression, the inverse of its penalty.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import accuracy_score, f1_score
    from sklearn.pipeline import make_pipeline

    dataset = load_dataset(config)
    if dataset.kind != KIND:
        raise UserError(f"dataset must hold {KIND}, and {config.dataset} holds {dataset.kind}")
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        LogisticRegression(C=strength, max_iter=1000),
    )
    model.fit(read_texts(dataset.train["text"]), dataset.train["label"].numpy())
    predicted, true = model.predict(read_texts(dataset.test["text"])), dataset.test["label"].numpy()
    return float(accuracy_score(true, predicted)), float(f1_score(true, predicted, average="macro"))


def main(
    dataset: Annotated[str, typer.Argument(help="A dataset of labelled texts, as a run calls it.")],
    options: Annotated[str, typer.Option(help="Its dataset-options.")] = "",
    strength: Annotated[float, typer.Option(help="C of the logistic regression.")] = 10.0,
) -> None:
    """Print the accuracy and the macro F1 of TF-IDF with logistic regression on the held-out texts."""
    accuracy, macro_f1 = scores(TaskConfig(dataset=dataset, dataset_options=options), strength)
    typer.echo(f"accuracy {accuracy:.4f}, macro-f1 {macro_f1:.4f}")


if __name__ == "__main__":
    typer.run(main)
