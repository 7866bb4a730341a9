select
    hospital,
    patient_id,
    visit_id,
    prediction_at,
    cast(end_at >= event_at + interval 7 days as integer) as label,
    'length_of_stay' as task,
    '1' as task_version
from {{ ref('visits_at_24h') }}
