"""World models as environments of gymnasium, to train agents in.

    from wmdeploy.envs.vector import WorldModelVectorEnv

It needs gymnasium, not torch; `wmdeploy.envs.stable_baselines` needs Stable-Baselines3, which
brings torch.
"""

from wmdeploy.errors import require

require("gymnasium", extra="agents", purpose="wmdeploy.envs")
