{{ amounts(ref('readings'), 'hour') }}
