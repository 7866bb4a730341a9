-- Every range of the dictionary has its low end below its high end; the reference range lies within the plausible one.
select
    'concepts' as seed_file,
    concept as entry
from {{ ref('concepts') }}
where
    plausible_low >= plausible_high
    or normal_low > normal_high
    or normal_low < plausible_low
    or normal_high > plausible_high
    or (normal_low is null) <> (normal_high is null)
    or carry_h < 0
    or digits < 0
union all
select
    'rescues' as seed_file,
    rescue as entry
from {{ ref('rescues') }}
where low >= high
