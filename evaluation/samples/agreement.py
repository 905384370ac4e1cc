"""Whether another network sees in a sample the class that was asked for."""

from collections.abc import Sequence

from torch import Tensor


def class_agreement(logits: Tensor, labels: Tensor, imagenet_classes: Sequence[int]) -> Tensor:
    """Whether the largest logit among the data set's own classes is that of the class of the image: bool [N].

    Args:
        logits: of the classes of ImageNet, [N, 1000].
        labels: the classes asked for, int64 [N], 0 to num_classes - 1.
        imagenet_classes: the ImageNet class that stands for each of the num_classes classes.
    """
    return logits[:, list(imagenet_classes)].argmax(dim=1) == labels
