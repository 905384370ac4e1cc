import pytest
import torch

from model import (
    PixelCNN,
    class_log_likelihoods,
    data_dependent_init,
    load_starter_checkpoint,
    log_likelihood,
    mixture_log_prob,
    posterior,
    to_unit,
)


@pytest.mark.parametrize("size", [16, 32])
def test_log_likelihood_is_the_starter_codes(starter_path, golden, device, size):
    data = golden("starter_r1_f8_m3")
    net = load_starter_checkpoint(starter_path, num_classes=4).to(device)
    images = data[f"images_{size}"].to(device)
    with torch.no_grad():
        log_prob = log_likelihood(net, images, torch.tensor([0, 3, 1], device=device)[: len(images)])
    torch.testing.assert_close(-log_prob.double().cpu(), data[f"nll_{size}"], rtol=1e-4, atol=0)


@pytest.mark.parametrize("channels", [1, 3])
def test_log_likelihood_is_that_of_the_mixture(make_net, channels):
    net = make_net(image_channels=channels)
    images, labels = torch.randint(0, 256, (3, channels, 8, 12), dtype=torch.uint8), torch.tensor([2, 0, 1])
    x = to_unit(images)
    log_prob = log_likelihood(net, images, labels)
    assert log_prob.dtype == torch.float32
    torch.testing.assert_close(log_prob, mixture_log_prob(x, net(x, labels)))


@pytest.mark.parametrize("channels", [1, 3])
def test_class_log_likelihoods_are_those_of_each_class_alone(make_net, device, channels):
    net = make_net(image_channels=channels).to(device)
    images = torch.randint(0, 256, (5, channels, 8, 8), dtype=torch.uint8)  # on the CPU: the function moves them
    together = class_log_likelihoods(net, images)
    assert together.shape == (5, 3)
    assert together.dtype == torch.float32
    with torch.no_grad():
        alone = [log_likelihood(net, images.to(device), torch.full((5,), label, device=device)) for label in range(3)]
    torch.testing.assert_close(together, torch.stack(alone, dim=1), rtol=1e-5, atol=0)
    assert (together[:, 0] != together[:, 1]).all()


def test_posterior_is_bayes_rule():
    log_likelihoods = torch.randn(4, 3) * 3
    likelihoods = log_likelihoods.exp()
    torch.testing.assert_close(posterior(log_likelihoods), likelihoods / likelihoods.sum(1, keepdim=True))
    prior = torch.tensor([0.7, 0.2, 0.1])
    weighted = likelihoods * prior
    torch.testing.assert_close(posterior(log_likelihoods, prior), weighted / weighted.sum(1, keepdim=True))


def test_posterior_of_whole_images_sums_to_one():
    log_likelihoods = torch.tensor([[-9000.0, -9001.0, -9500.0], [-1e5, -1e5, -1e5]])
    probabilities = posterior(log_likelihoods)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(2))
    assert torch.equal(probabilities[0].argsort(descending=True), torch.tensor([0, 1, 2]))
    torch.testing.assert_close(probabilities[1], torch.full((3,), 1 / 3))


def test_prior_shifts_the_posterior():
    close = torch.tensor([[-9000.0, -9000.5]])
    assert posterior(close).argmax() == 0
    assert posterior(close, torch.tensor([0.1, 0.9])).argmax() == 1
    assert torch.equal(posterior(close, torch.tensor([0.0, 1.0])), torch.tensor([[0.0, 1.0]]))


@pytest.mark.parametrize("fusion", ["early+middle", "film"])
def test_a_net_that_learnt_its_images_by_heart_knows_their_classes(fusion):
    net = PixelCNN(1, 8, 2, image_channels=1, num_classes=2, fusion=fusion, dropout=0.0)
    images, labels = torch.randint(0, 256, (8, 1, 8, 8), dtype=torch.uint8), torch.arange(8) % 2
    data_dependent_init(net, images, labels)
    before = log_likelihood(net, images, labels).mean().item()
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    for _ in range(60):
        optimizer.zero_grad()
        log_likelihood(net, images, labels).mean().neg().backward()
        optimizer.step()
    scores = class_log_likelihoods(net.eval(), images)
    assert torch.equal(scores.argmax(dim=1), labels)
    assert scores.gather(1, labels[:, None]).mean() > before + 50


def test_without_a_class_all_classes_are_exactly_equal_whatever_the_rounding():
    net = PixelCNN(1, 4, 2, image_channels=1, num_classes=3, fusion="none").eval()
    images = torch.randint(0, 256, (4, 1, 8, 8), dtype=torch.uint8)
    # the place in a batch changes the rounding on some devices
    net.register_forward_hook(lambda _, __, params: params + 1e-6 * torch.arange(len(params))[:, None, None, None])
    scores = class_log_likelihoods(net, images)
    assert scores.shape == (4, 3) and torch.equal(scores, scores[:, :1].expand(-1, 3))
    torch.testing.assert_close(scores[:, 0], log_likelihood(net, images, torch.ones(4, dtype=torch.int64)))
