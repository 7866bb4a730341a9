select
    visits.hospital,
    visits.patient_id,
    visits.visit_id,
    visits.prediction_at,
    cast(coalesce(visits.died_in_visit, patients.death_at <= visits.end_at, false) as integer) as label,
    'in_hospital_mortality' as task,
    '1' as task_version
from {{ ref('visits_at_24h') }} as visits
left join {{ source('input', 'patients') }} as patients
    on visits.hospital = patients.hospital and visits.patient_id = patients.patient_id
