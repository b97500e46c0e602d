"""What: patients, studies, series, instances, and who may see which."""
