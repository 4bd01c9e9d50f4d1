"""How far classes lie apart in feature space, against how far they spread."""

from torch import Tensor


def fisher_ratio(x: Tensor, labels: Tensor, floor: float = 1e-6) -> Tensor:
    """Return the between-class over the within-class scatter of features x [n, d] (NTP's LDA regulariser).

    Between: the mean squared deviation of the class means from their average. Within: the sum over classes of the
    mean squared deviation from the class mean, at least `floor`. Classes that no label [n] names are left out.
    """
    member: Tensor = (labels[:, None] == labels.unique()).to(x.dtype)
    share = member / member.sum(0)
    means = share.T @ x
    between = (means - means.mean(0)).square().mean()
    deviations = (x - member @ means).square().mean(1)
    within = (deviations @ share).sum()
    return between / within.clamp_min(floor)
