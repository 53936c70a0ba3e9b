"""From a checkpoint to a model repository.

nemo2riva     model.nemo -> model.riva    conversion -> checkpoint -> families
riva_build    model.riva -> model.rmir    pipelines
riva_deploy   model.rmir -> repository    pipelines
"""
