select
    hospital,
    patient_id,
    person_group,
    person_id,
    split
from {{ source('input', 'patients') }}
