"""The model as four graphs, encoder, posterior, prior and decoder, and the programs of them."""

import functools

from wmdeploy.families.family import Deployment
from wmdeploy.families.half import graph_of
from wmdeploy.families.recurrent.network import Head, Logits, Norm, RecurrentModel
from wmdeploy.families.recurrent.steps import Posterior, Prior, Start
from wmdeploy.families.tensors import floats, integers, pixels
from wmdeploy.manifest import Precision
from wmdeploy.programs.contract import Call, Noise, Programs

ISLANDS = (Norm, Logits, Head, Start)  # float32 in graphs of float16


def deployment(model: RecurrentModel, precision: Precision) -> Deployment:
    """The graphs of a model, as published or folded.

    What they take and give is float32 in both precisions: the state is small, and would lose digits
    at each frame.
    """
    c = model.config
    drawn = (c.variables, c.classes)
    action = floats("action", c.action_size) if c.action_size else integers("action")
    embed, logits = floats("embed", c.embed), floats("logits", *drawn)
    state = (integers("stoch", c.variables), floats("deter", c.deter))
    taken = (*state, action, floats("noise", *drawn))
    heads = (floats("reward"), floats("cont"))
    given = (integers("next_stoch", c.variables), floats("next_deter", c.deter), *heads, logits)

    graph = functools.partial(graph_of, precision=precision, islands=ISLANDS)
    held = {"stoch": "state.stoch", "deter": "state.deter"}
    step = {**held, "action": "action", "noise": "noise.stoch"}
    gives = {"state.stoch": "next_stoch", "state.deter": "next_deter"}
    gives |= {f"out.{spec.name}": spec.name for spec in (*heads, logits)}
    real = {"embed": "new.embed", "length": "length"}
    return Deployment(
        graphs={
            "encoder": graph(lambda: model.encoder, (pixels("frames", c.image_size),), (embed,)),
            "posterior": graph(
                lambda: Posterior(model), (embed, integers("length"), *taken), given
            ),
            "prior": graph(lambda: Prior(model), taken, given),
            "decoder": graph(
                lambda: model.heads["decoder"], state, (pixels("frame", c.image_size),)
            ),
        },
        programs=Programs(
            context=1,
            keep=1,
            action=action,
            num_actions=c.num_actions,
            state=state,
            noise={"stoch": Noise("gumbel", drawn)},
            outputs=(*heads, logits),
            encode=(Call("encoder", {"frames": "frame"}, {"new.embed": "embed"}),),
            absorb=(Call("posterior", {**real, **step}, gives),),
            predict=(Call("prior", step, gives),),
            render=(Call("decoder", held, {"frame": "frame"}),),
            undo=("stoch", "deter"),
        ),
    )
